# wall: others
# tries: what belongs to others, with the tools of the system
# ends: exit 0
echo "trying: everything" >&2
env | grep CANARY >&2
cat /proc/*/environ 2>/dev/null | tr '\0' '\n' | grep CANARY >&2
grep -rs CANARY /storage /bundle /attachments /tmp /etc /dev/shm /proc/1/cwd/ /proc/1/root/storage 2>/dev/null | head -3 >&2
for d in /var/lib/mayfly /root /home /srv; do ls "$d" 2>/dev/null && echo "BROKE: $d" >&2; done
echo "held" >&2
exit 0
