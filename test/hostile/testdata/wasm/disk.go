// wall: disk
// tries: to fill its folders, also with a file of 1 TB that takes no room
// runs: write truncate
// ends: exit 0

package main

import "os"

func disk(variant string) {
	block := make([]byte, 1<<20)
	for _, dir := range []string{"/tmp", "/storage"} {
		say("trying", "%s in %s", variant, dir)
		f, err := os.Create(dir + "/bomb")
		if err != nil {
			say("held", "%v", err)
			continue
		}
		if variant == "truncate" {
			refused("1 TB", f.Truncate(1<<40))
		}
		n := 0
		for ; err == nil && n < 300; n++ {
			_, err = f.Write(block)
		}
		if n >= 300 {
			say("BROKE", "%d MB in %s", n, dir)
		}
		say("held", "after %d MB: %v", n, err)
		f.Close()
		os.Remove(dir + "/bomb")
	}
}
