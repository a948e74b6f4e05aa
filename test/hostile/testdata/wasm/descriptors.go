// wall: descriptors
// tries: to have 5,000 open files; to use descriptors that nobody gave it
// ends: exit 0 or exit 1

package main

import "os"

//go:wasmimport wasi_snapshot_preview1 fd_renumber
func fdRenumber(from, to int32) uint32

func descriptors(string) {
	say("trying", "5,000 files")
	var held []*os.File
	for len(held) < 5000 {
		f, err := os.Create("/tmp/file")
		if err != nil {
			say("held", "%d files: %v", len(held), err)
			break
		}
		held = append(held, f)
	}
	if len(held) > 300 {
		say("BROKE", "%d files", len(held))
	}
	for _, f := range held {
		f.Close()
	}
	say("trying", "to move directories over each other")
	for fd := int32(3); fd < 20; fd++ {
		fdRenumber(fd, fd+1)
	}
}
