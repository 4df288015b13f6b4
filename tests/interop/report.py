"""Runs the interop tests one after another, and writes a row for each to a report. Arguments: the report's path, and the command that
runs the tests. The exit status is 0 if the run completed."""

import json
import pathlib
import re
import subprocess
import sys

report, command = pathlib.Path(sys.argv[1]), sys.argv[2:]
outcome = re.compile(r"^test (\S+) \.\.\. (ok|FAILED)$")
ignored = re.compile(r"^test (\S+) \.\.\. ignored, (.*)$")

rows, has_ended = [], False
run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
for line in run.stdout:
    print(line, end="", flush=True)
    line = line.rstrip()
    has_ended |= line.startswith("test result: ")
    if found := outcome.match(line):
        row = {"held": found[2] == "ok", "skipped": None}
    elif found := ignored.match(line):
        row = {"held": False, "skipped": found[2]}
    else:
        continue
    rows.append({"id": found[1].replace("::", "."), **row, "figures": {}, "limits": {}})
run.wait()
if not (has_ended and rows):
    sys.exit("the tests did not end")
report.parent.mkdir(parents=True, exist_ok=True)
report.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
print(f"{sum(row['held'] for row in rows)} of {len(rows)} rows held: {report}")
