// wall: time
// tries: to sleep for an hour; to wait for input that never comes
// runs: sleep stdin
// limits: wall=1s
// ends: killed wall
// within: 5s

package main

import (
	"io"
	"os"
	"time"
)

func sleep(variant string) {
	say("trying", "%s", variant)
	if variant == "stdin" {
		io.Copy(io.Discard, os.Stdin)
		for {
			time.Sleep(time.Minute)
		}
	}
	time.Sleep(time.Hour)
	say("BROKE", "an hour is over")
}
