#!/bin/sh
# As root, gives /data to redis; then, as redis, the server.
set -e
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    chown -R redis:redis .
    exec setpriv --reuid redis --regid redis --clear-groups "$0" "$@"
fi
exec "$@"
