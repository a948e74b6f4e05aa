// benign

package main

import "time"

func wait(string) {
	say("trying", "nothing")
	for {
		time.Sleep(time.Hour)
	}
}
