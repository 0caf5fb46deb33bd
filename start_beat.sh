#!/bin/sh
# Start beat in this terminal: it sends the scheduled tasks. A second one in this folder is refused: two beats
# send everything twice.
#
#   ./start_beat.sh [options of `celery beat`]
set -eu

cd "$(dirname "$(readlink -f "$0")")" # also when it is called through a symbolic link
exec ./learn run celery -A celery_app beat --loglevel=info "$@"
