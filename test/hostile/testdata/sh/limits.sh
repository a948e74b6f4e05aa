# wall: descriptors
# tries: to raise its limits
# ends: exit 0
for l in "n 100000" "c unlimited" "f unlimited" "l unlimited"; do
	echo "trying: ulimit -$l" >&2
	(ulimit -$l) 2>/dev/null && echo "BROKE: ulimit -$l" >&2 || echo "held: ulimit -$l" >&2
done
exit 0
