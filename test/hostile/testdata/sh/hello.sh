# benign
echo "trying: nothing" >&2
echo hello >"$HOME/note"
