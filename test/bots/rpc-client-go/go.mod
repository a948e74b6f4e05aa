module echobot

go 1.25.1

require github.com/chatmail/rpc-client-go/v2 v2.49.0

require (
	github.com/creachadair/jrpc2 v1.3.5 // indirect
	github.com/creachadair/mds v0.26.1 // indirect
	golang.org/x/sync v0.19.0 // indirect
)
