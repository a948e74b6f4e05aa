// wall: dumps
// tries: to crash the engine: by recursion, by a nil pointer, by a panic
// runs: recursion nil panic
// ends: exit 2 or signal ABRT or exit 1 or killed memory

package main

func deeper(n int) int {
	var pad [64]int
	pad[n&63] = n
	return deeper(n+1) + pad[(n+1)&63]
}

func crash(variant string) {
	say("trying", "%s", variant)
	switch variant {
	case "recursion":
		deeper(0)
	case "nil":
		var p *int
		*p = 1
	}
	panic("a panic")
}
