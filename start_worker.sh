#!/bin/sh
# Start a worker in this terminal. Ctrl-C ends it when its running tasks are done.
#
#   ./start_worker.sh                            all queues
#   ./start_worker.sh realworld --concurrency 4  one queue; options go to `celery worker`
#   ./start_worker.sh basic advanced             several queues
set -eu

case ${1-} in
-h | --help)
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac

queues=
while [ $# -gt 0 ]; do
    case $1 in
    -*) break ;;
    *) queues=${queues:+$queues,}$1 ;;
    esac
    shift
done
name=$(echo "${queues:-all}" | tr , -)

cd "$(dirname "$(readlink -f "$0")")" # also when it is called through a symbolic link
exec ./learn run celery -A celery_app worker --loglevel=info ${queues:+--queues="$queues"} --hostname="$name@%h" "$@"
