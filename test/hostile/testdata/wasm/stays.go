// wall: end
// tries: to go on after its end
// ends: exit 0
// within: 5s

package main

import "time"

func stays(string) {
	say("trying", "to stay")
	for range 100 {
		go func() {
			for {
				time.Sleep(time.Millisecond)
			}
		}()
	}
}
