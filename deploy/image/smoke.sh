#!/bin/sh
# Run an image as the manifests do, with docker: it becomes healthy, answers a turn, and ends in order.
#   smoke.sh IMAGE
set -eu
image=$1
name=opencode-sidecar-smoke-$$

docker run --detach --name "$name" --env RUNTIME_API_KEY=smoke --user 10001:10001 \
  --read-only --tmpfs /tmp:exec,mode=1777 --cap-drop ALL --security-opt no-new-privileges "$image"
trap 'docker logs "$name" 2>&1 | tail -50; docker rm --force --volumes "$name" >/dev/null' EXIT

for _ in $(seq 90); do
  health=$(docker inspect --format '{{.State.Health.Status}}' "$name")
  [ "$health" != healthy ] || break
  sleep 1
done
[ "$health" = healthy ]

answer=$(docker exec --env SIDECAR_BASE_URL=http://127.0.0.1:8080 --env SIDECAR_API_KEY=smoke "$name" \
  opencode-sidecar run '[[bash: id -u]] [[then]] [[say: it works]]')
[ "$answer" = "it works" ]

docker stop --time 45 "$name"
[ "$(docker inspect --format '{{.State.ExitCode}}' "$name")" = 0 ]
