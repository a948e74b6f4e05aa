// benign

package main

import "os"

func hello(string) {
	say("trying", "nothing")
	if err := os.WriteFile("/storage/note", []byte("hello"), 0o600); err != nil {
		say("BROKE", "%v", err)
	}
}
