# wall: cpu
# tries: to compute in eight processes, each of which takes little
# limits: cpu=1s wall=20s
# ends: killed cpu
# within: 8s
echo "trying: to compute" >&2
for n in 1 2 3 4 5 6 7 8; do (while :; do (i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done); done) & done
wait
