"""A page opened in headless Chromium, and what a script of the test's own found there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ("--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--disable-quic", "--disable-extensions", "--enable-logging=stderr",
         "--virtual-time-budget=60000", "--dump-dom")  # fmt: skip
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def browser() -> str | None:
    """Path of a Chromium; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass(frozen=True)
class Opened:
    """What came of opening a page.

    Attributes:
        found: what the script returned.
        complaints: errors that the page itself would have shown in the console.
    """

    found: Any
    complaints: list[str]


def opened(page: Path, script: str, scratch: Path, width: int = 1400, height: int = 1000) -> Opened:
    """Open a copy of a page that differs in one thing: its policy allows the script of the test.

    Args:
        script: body of a function; what it returns is plain JSON.
        scratch: an empty folder.
    """
    path = browser()
    assert path is not None
    text = page.read_text()
    assert text.count(POLICY.replace("'", "&#x27;")) == 1, "the page's policy is not the one that is relaxed here"
    relaxed = text.replace(POLICY.replace("'", "&#x27;"), f"{POLICY}; script-src 'unsafe-inline'")
    # What the script throws is told apart from what the page does.
    runs = f"""<pre id="of-the-test"></pre><script>
      const problems = [];
      addEventListener("error", event => problems.push(String(event.message)));
      addEventListener("securitypolicyviolation", event => problems.push(event.violatedDirective));
      addEventListener("load", () => {{
        let found = null;
        try {{ found = (() => {{ {script} }})(); }} catch (error) {{ found = {{error: String(error)}}; }}
        document.getElementById("of-the-test").textContent = JSON.stringify({{found, problems}});
      }});
    </script>"""
    copy = scratch / "copy.html"
    copy.write_text(relaxed.replace("</body>", f"{runs}</body>"))
    # As root Chromium has no sandbox to go into.
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [path, *FLAGS, *root, f"--user-data-dir={scratch / 'profile'}", f"--window-size={width},{height}", copy.as_uri()],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    held = re.search(r'<pre id="of-the-test">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert held is not None and held[1], done.stderr[-2000:]
    told = json.loads(unescape(held[1]))
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Opened(told["found"], [*told["problems"], *console])
