module webxdcbot

go 1.25.1

require (
	github.com/chatmail/rpc-client-go/v2 v2.49.0
	github.com/deltachat-bot/deltabot-cli-go/v2 v2.49.0
	github.com/spf13/cobra v1.10.2
)

require (
	github.com/creachadair/jrpc2 v1.3.5 // indirect
	github.com/creachadair/mds v0.26.1 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/pflag v1.0.9 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	go.uber.org/zap v1.26.0 // indirect
	golang.org/x/sync v0.19.0 // indirect
)
