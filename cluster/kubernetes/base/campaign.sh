#!/usr/bin/env bash
# campaign.sh CONFIG DIR: begin the campaign in DIR, or go on with it where it was begun.
#
# The entrypoint of the RayJob. When the head dies, KubeRay runs it again on a new cluster, and the ledger in DIR says how
# far the campaign came. Exit codes are raygrow's: 0 done, 2 refused, 3 could not finish, 130 interrupted.
#
#   RAYGROW_ADDRESS      of the Ray cluster; `auto` where this runs on one of its nodes
#   RAYGROW_SET          words KEY.PATH=VALUE for a new campaign, apart by spaces
#   MLFLOW_TRACKING_URI  where a new campaign is tracked, instead of the configuration's
#   RAYGROW_COPY_TO      URI that DIR is copied to when the campaign ends, however it ends: s3://bucket/prefix
set -uo pipefail

config=$1
out=$2
address=${RAYGROW_ADDRESS-auto}

words=(--log-format json)
if [ -n "$address" ]; then
  words+=(--address "$address")
fi
# Only a whole first line says that the campaign has begun.
if [ -s "$out/events.jsonl" ] && [ "$(wc -l <"$out/events.jsonl")" -ge 1 ]; then
  words=(resume "$out" "${words[@]}")
else
  # A head that died before that left nothing to go on with.
  rm -f "$out/config.yaml" "$out/events.jsonl" "$out/.lock"
  words=(run "$config" --out "$out" "${words[@]}")
  read -ra keys <<<"${RAYGROW_SET-}"
  for key in ${keys[@]+"${keys[@]}"}; do
    words+=(--set "$key")
  done
  if [ -n "${MLFLOW_TRACKING_URI-}" ]; then
    words+=(--set "tracking.uri=$MLFLOW_TRACKING_URI")
  fi
fi

raygrow "${words[@]}" &
campaign=$!
trap 'kill -TERM "$campaign"' TERM INT
wait "$campaign"
code=$?
# A signal ends the wait before raygrow has written what it leaves.
while kill -0 "$campaign" 2>/dev/null; do
  wait "$campaign"
  code=$?
done

if [ -n "${RAYGROW_COPY_TO-}" ] && [ -e "$out/events.jsonl" ]; then
  echo "copying $out to $RAYGROW_COPY_TO" >&2
  if ! python -c 'import sys; from pyarrow import fs; fs.copy_files(sys.argv[1], sys.argv[2])' \
    "$(realpath "$out")" "$RAYGROW_COPY_TO"; then
    # What the campaign itself came to goes before.
    [ "$code" -ne 0 ] || code=3
  fi
fi
exit "$code"
