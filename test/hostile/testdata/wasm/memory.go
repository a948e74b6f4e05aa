// wall: memory
// tries: to take 2 GB
// ends: exit 2 or killed memory or signal ABRT

package main

func memory(string) {
	say("trying", "2 GB")
	var held [][]byte
	for range 2048 {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		held = append(held, b)
	}
	say("BROKE", "%d MB", len(held))
}
