package accountreader

import (
	"context"
	"io"

	"mayfly/internal/bot"
)

// Client asks a reader that runs in core's sandbox.
type Client struct{}

// NewClient talks to a reader over its pipes.
func NewClient(stdin io.WriteCloser, stdout io.Reader) *Client { return &Client{} }

// Pending counts what core has still to do.
func (c *Client) Pending(ctx context.Context) (bot.Pending, error) { return bot.Pending{}, nil }

// State reads what the gate must know.
func (c *Client) State(ctx context.Context) (bot.AccountState, error) {
	return bot.AccountState{}, nil
}

// Close ends the reader.
func (c *Client) Close() error { return nil }
