# wall: inodes
# tries: 15,000 files in /tmp and /dev/shm
# ends: exit 0
# within: 30s
cd /tmp || exit 1
echo "trying: 15,000 files" >&2
n=0
while [ $n -lt 15000 ]; do
	true 2>/dev/null >"f$n" || break
	n=$((n + 1))
done
[ $n -lt 12000 ] && echo "held: $n files" >&2 || echo "BROKE: $n files" >&2
exit 0
