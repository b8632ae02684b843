"""The population: members, the coordinator that judges between them, the ledger and the checkpoints."""
