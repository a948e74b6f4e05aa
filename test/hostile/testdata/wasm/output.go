// wall: output
// tries: to drown whoever reads
// runs: stdout stderr
// limits: wall=10s
// ends: done broken or exit 1 or killed wall
// quiet

package main

import (
	"bytes"
	"os"
)

func output(variant string) {
	say("trying", "100 MB on %s", variant)
	to := os.Stdout
	if variant == "stderr" {
		to = os.Stderr
	}
	block := bytes.Repeat([]byte("flood\n"), 10000)
	for range 1700 {
		to.Write(block)
	}
}
