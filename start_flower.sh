#!/bin/sh
# Start Flower in this terminal: a web page that shows workers, tasks and queues, on this machine only.
#
#   ./start_flower.sh [options of `celery flower`]
#
# Log in as FLOWER_USER (default: learner) with FLOWER_PASSWORD. Without it, a password is made for this run.
set -eu

cd "$(dirname "$(readlink -f "$0")")" # also when it is called through a symbolic link
exec ./learn run celery -A celery_app flower "$@"
