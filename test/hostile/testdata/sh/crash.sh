# wall: dumps
# tries: to be dumped, as the shell and as a child of it
# ends: exit 0
cd /storage || exit 1
ulimit -c unlimited 2>/dev/null
echo "trying: SEGV" >&2
sh -c 'kill -ABRT $$' 2>/dev/null
sh -c 'kill -SEGV $$' 2>/dev/null
for f in core core.*; do [ -e "$f" ] && echo "BROKE: $f" >&2; done
echo "held" >&2
exit 0
