# wall: output
# tries: to drown its log and its answer
# runs: stdout stderr
# limits: wall=3s
# ends: done broken or killed wall or exit 141 or signal PIPE or killed cpu
# quiet
case $1 in
stdout) yes "trying: a flood" | head -c 300000000 ;;
stderr) yes "trying: a flood" | head -c 300000000 >&2 ;;
esac
exit 0
