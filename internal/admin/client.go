package admin

import (
	"context"

	"mayfly/internal/backup"
)

// Bots is Desk.Bots.
func (c *Client) Bots(ctx context.Context, q Which) ([]Bot, error) {
	return ask[[]Bot](ctx, c, "bots", q)
}

// Runs is Desk.Runs.
func (c *Client) Runs(ctx context.Context, q RunsQuestion) (Runs, error) {
	return ask[Runs](ctx, c, "runs", q)
}

// Logs is Desk.Logs.
func (c *Client) Logs(ctx context.Context, q LogsQuestion) ([]Run, error) {
	return ask[[]Run](ctx, c, "logs", q)
}

// Usage is Desk.Usage.
func (c *Client) Usage(ctx context.Context, q Which) (Usage, error) {
	return ask[Usage](ctx, c, "usage", q)
}

// Whole is Desk.Whole.
func (c *Client) Whole(ctx context.Context, q Nothing) (HostUsage, error) {
	return ask[HostUsage](ctx, c, "host", q)
}

// Outbox is Desk.Outbox.
func (c *Client) Outbox(ctx context.Context, q Which) ([]Waiting, error) {
	return ask[[]Waiting](ctx, c, "outbox", q)
}

// Retry is Desk.Retry.
func (c *Client) Retry(ctx context.Context, q Which) (Retried, error) {
	return ask[Retried](ctx, c, "retry", q)
}

// Replay is Desk.Replay.
func (c *Client) Replay(ctx context.Context, q Job) (Done, error) {
	return ask[Done](ctx, c, "replay", q)
}

// Pause is Desk.Pause.
func (c *Client) Pause(ctx context.Context, q Act) (Done, error) {
	return ask[Done](ctx, c, "pause", q)
}

// Resume is Desk.Resume.
func (c *Client) Resume(ctx context.Context, q Act) (Done, error) {
	return ask[Done](ctx, c, "resume", q)
}

// Remove is Desk.Remove.
func (c *Client) Remove(ctx context.Context, q Act) (Removed, error) {
	return ask[Removed](ctx, c, "remove", q)
}

// Verify is Desk.Verify.
func (c *Client) Verify(ctx context.Context, q Nothing) ([]backup.Problem, error) {
	return ask[[]backup.Problem](ctx, c, "verify", q)
}
