// wall: cpu
// tries: to compute for ever: in a loop, in calls of the host
// runs: loop host
// limits: cpu=1s
// ends: killed cpu
// within: 6s

package main

import "os"

func spin(variant string) {
	say("trying", "%s", variant)
	for n := uint64(1); n != 0; n += 2 {
		if variant == "host" {
			os.Stat("/storage")
		}
	}
	say("BROKE", "an odd number came to 0")
}
