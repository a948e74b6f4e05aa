# wall: pids
# tries: the fork bomb of the shell
# limits: wall=3s
# ends: exit 0 or exit 2 or exit 254 or killed wall or killed cpu
# within: 8s
# quiet
echo "trying: a bomb" >&2
bomb() { bomb | bomb & }
bomb
sleep 1
echo "held" >&2
