"""Runs the interop tests one after another, and writes a row for each to a report. Arguments: the report's path, and the command that
runs the tests. The exit status is 0 if the run completed."""

import fnmatch
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

# Prints date, commit and machine.
DESCRIBE_RUN = ["cargo", "run", "--quiet", "--package", "evenkeel-report", "--", "run"]

report, command = pathlib.Path(sys.argv[1]), sys.argv[2:]
table = tomllib.loads((pathlib.Path(__file__).parent.parent / "limits.toml").read_text())["interop"]
outcome = re.compile(r"^test (\S+) \.\.\. (ok|FAILED)$")
ignored = re.compile(r"^test (\S+) \.\.\. ignored, (.*)$")


def limits_of(row):
    """Those of the most specific key: the most characters before its `*`."""
    keys = [key for key in table if fnmatch.fnmatchcase(row, key)]
    return table[max(keys, key=lambda key: len(key.split("*")[0]))]["limit"]


rows, has_ended = [], False
# Tests add lines here: the test, a figure's name, and the figure or the reason for which it was not measured; or `client` and the version of one.
measured = tempfile.NamedTemporaryFile(mode="r")
run = subprocess.Popen(
    command,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env={**os.environ, "EVENKEEL_FIGURES": measured.name, "EVENKEEL_JUDGES_TIMES": "1"},
)
for line in run.stdout:
    print(line, end="", flush=True)
    line = line.rstrip()
    has_ended |= line.startswith("test result: ")
    if found := outcome.match(line):
        failed, reason = float(found[2] != "ok"), None
    elif found := ignored.match(line):
        failed, reason = None, found[2]
    else:
        continue
    test = found[1].replace("::", ".")
    limits = {"failed": limits_of(test)["failed"]}
    held = None if reason else failed <= limits["failed"]
    row = {"id": test, "held": held, "skipped": reason, "not-measured": None}
    rows.append({**row, "figures": {"failed": failed}, "limits": limits})
run.wait()
if not (has_ended and rows):
    sys.exit("the tests did not end")
by_id = {row["id"]: row for row in rows}
for line in measured:
    test, name, value = line.rstrip("\n").split("\t")
    row = by_id.get(test.replace("::", "."))
    # libtest prints another line for a test that is to panic.
    if row is None:
        continue
    if name == "client":
        row["clients"] = sorted({value, *row.get("clients", [])})
    elif name == "not-measured":
        # A test that failed has missed another limit.
        row["not-measured"] = value
        row["held"] = None if row["held"] else row["held"]
    else:
        row["figures"][name] = max(float(value), row["figures"].get(name, 0.0))
        limits = limits_of(row["id"])
        if name in limits:
            row["limits"][name] = limits[name]
report.parent.mkdir(parents=True, exist_ok=True)
described = subprocess.run(DESCRIBE_RUN, stdout=subprocess.PIPE, text=True, check=True).stdout
report.write_text(json.dumps({"run": json.loads(described), "rows": rows}, indent=2) + "\n")
for row in rows:
    if "clients" in row:
        print(f"{row['id']}: {', '.join(row['clients'])}")
print(f"{sum(row['held'] is True for row in rows)} of {len(rows)} rows held: {report}")
