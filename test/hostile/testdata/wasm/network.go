// wall: network
// tries: to connect, to resolve, to accept on any descriptor
// ends: exit 0

package main

import (
	"net"
	"time"
)

//go:wasmimport wasi_snapshot_preview1 sock_accept
func sockAccept(fd, flags int32, to *int32) uint32

func network(string) {
	for _, addr := range []string{"127.0.0.1:10025", "10.0.0.1:80", "169.254.169.254:80", "[::1]:25"} {
		_, err := net.DialTimeout("tcp", addr, time.Second)
		refused("to connect to "+addr, err)
	}
	_, err := net.LookupHost("example.org")
	refused("to resolve a name", err)
	for fd := range int32(32) {
		var got int32
		if sockAccept(fd, 0, &got) == 0 {
			say("BROKE", "descriptor %d accepted", fd)
		}
	}
	say("held", "no descriptor accepts")
}
