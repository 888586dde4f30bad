#!/bin/sh
# The handler of the stream function: the Web Adapter runs this instead of Lambda's own runtime loop
# (AWS_LAMBDA_EXEC_WRAPPER=/opt/bootstrap), which alone would have put the layer on Python's path.
set -eu

export PYTHONPATH="/opt/python${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONDONTWRITEBYTECODE=1 # the file system is read-only
export PYTHONUNBUFFERED=1        # a log line must be out before the sandbox is frozen
export PORT="${AWS_LWA_PORT:-${PORT:-8080}}"

cd "${LAMBDA_TASK_ROOT:-$(dirname "$0")}"
# exec: the signals of Lambda's shutdown must reach Python. -s: no user site, one directory less to look at.
exec python3 -s app.py
