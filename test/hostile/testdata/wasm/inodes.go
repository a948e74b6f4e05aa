// wall: inodes
// tries: 30,000 files
// ends: exit 0
// within: 30s

package main

import (
	"fmt"
	"os"
)

func inodes(string) {
	say("trying", "30,000 files")
	for n := range 30000 {
		if err := os.WriteFile(fmt.Sprintf("/tmp/f%d", n), nil, 0o600); err != nil {
			say("held", "%d files: %v", n, err)
			return
		}
	}
	say("BROKE", "30,000 files")
}
