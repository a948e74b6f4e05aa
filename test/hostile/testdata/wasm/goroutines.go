// wall: pids
// tries: 20,000 at a time of what is a thread elsewhere, each blocked in a call of the host
// limits: wall=20s
// ends: exit 0 or exit 2 or killed memory
// within: 30s

package main

import (
	"os"
	"sync"
	"time"
)

func goroutines(string) {
	say("trying", "20,000 goroutines")
	var all sync.WaitGroup
	for n := range 20000 {
		all.Go(func() {
			if n%100 == 0 {
				os.ReadDir("/storage")
			}
			time.Sleep(10 * time.Millisecond)
		})
	}
	all.Wait()
	say("held", "all came")
}
