//go:build bench

package bench

import (
	"context"
	"errors"
	"testing"
	"time"

	"mayfly/internal/core"
	"mayfly/internal/user"
)

// echoed is when the resident bot's core had a message, and when the answer was handed to it.
type echoed struct{ incoming, said time.Time }

// echo is a resident bot: what examples/echo does with a text, in Go, on a core that runs all the time.
type echo struct {
	user *user.User
	done chan echoed
}

func startEcho(t *testing.T, ctx context.Context, u *user.User) *echo {
	t.Helper()
	for key, value := range map[string]string{"bot": "1", "mdns_enabled": "0"} { // as the host sets them
		must(t, u.SetConfig(ctx, u.Account, key, value))
	}
	e := &echo{user: u, done: make(chan echoed, 1)}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- e.serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the resident bot: %v", err)
		}
	})
	return e
}

func (e *echo) serve(ctx context.Context) error {
	for {
		event, err := e.user.Await(ctx, func(e core.Event) bool { return e.Kind == core.IncomingMsg })
		if err != nil {
			return err
		}
		incoming := time.Now()
		m, err := e.user.GetMessage(ctx, e.user.Account, event.MsgID)
		if err != nil {
			return err
		}
		if m.IsInfo {
			continue
		}
		if _, err := e.user.Say(ctx, m.ChatID, m.Text); err != nil {
			return err
		}
		e.done <- echoed{incoming, time.Now()}
	}
}
