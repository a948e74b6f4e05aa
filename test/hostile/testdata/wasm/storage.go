// wall: storage
// tries: links, names and trees that the daemon must not take
// runs: symlink loop name deep
// ends: exit 0
// folder symlink: kept
// folder loop: kept
// folder name: refused .
// folder deep: refused .

package main

import "os"

func storage(variant string) {
	say("trying", "%s", variant)
	var err error
	switch variant {
	case "symlink":
		err = os.Symlink("/etc/shadow", "/storage/shadow")
	case "loop":
		err = os.Symlink("loop", "/storage/loop")
	case "name":
		err = os.WriteFile("/storage/\x1b[2J\n", nil, 0o600)
	case "deep":
		dir := "/storage"
		for range 40 {
			dir += "/d"
			err = os.Mkdir(dir, 0o700)
		}
	}
	say("note", "%v", err)
}
