# wall: time
# tries: to outstay its time, deaf to TERM, in children that are started anew
# limits: wall=2s
# ends: killed wall
# within: 6s
trap '' TERM INT HUP QUIT
echo "trying: to stay" >&2
while :; do (trap '' TERM; sleep 1000) & sleep 0.2; done
