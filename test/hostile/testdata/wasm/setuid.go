// wall: privileges
// tries: to leave a file that runs as its owner, to change owners
// ends: exit 0
// folder: kept

package main

import "os"

func setuid(string) {
	say("trying", "a setuid file")
	if err := os.WriteFile("/storage/trap", []byte("#!/bin/sh\n"), 0o777); err != nil {
		say("held", "%v", err)
	}
	if err := os.Chmod("/storage/trap", 0o777|os.ModeSetuid|os.ModeSetgid); err != nil {
		say("held", "%v", err)
	}
	refused("chown", os.Chown("/storage/trap", 0, 0))
}
