package admin

import (
	"context"
	"time"

	"mayfly/internal/bot"
)

// Usage is what bots used, and what the host has.
type Usage struct {
	Bots []BotUsage `json:"bots"`
	Host HostUsage  `json:"host"`
}

// BotUsage is what one bot used in the last hour and the last 24 hours.
type BotUsage struct {
	Bot     bot.Address   `json:"bot"`
	CPUHour time.Duration `json:"cpu_hour_ns"` // of its own program
	CPUDay  time.Duration `json:"cpu_day_ns"`
	CoreDay time.Duration `json:"core_cpu_day_ns"` // of core, for it
	InHour  int           `json:"mails_hour"`      // that the gate let pass
	InDay   int           `json:"mails_day"`
	RunsDay int           `json:"runs_day"`
	Disk    int64         `json:"disk_bytes"`
}

// HostUsage is what all bots together take.
type HostUsage struct {
	Bots   int   `json:"bots"`
	Disk   int64 `json:"disk_bytes"`   // accounts, folders and bundles
	Ledger int64 `json:"ledger_bytes"` // with its write-ahead log
	Free   int64 `json:"free_bytes"`   // where the state folder is
}

// Usage says what was used.
func (d *Desk) Usage(ctx context.Context, q Which) (Usage, error) {
	bots, err := d.all(ctx, q)
	if err != nil {
		return Usage{}, err
	}
	answer := Usage{Bots: []BotUsage{}}
	for _, b := range bots {
		one, err := d.botUsage(ctx, b.Address)
		if err != nil {
			return answer, err
		}
		answer.Bots = append(answer.Bots, one)
	}
	answer.Host, err = d.hostUsage(ctx)
	return answer, err
}

func (d *Desk) botUsage(ctx context.Context, addr bot.Address) (BotUsage, error) {
	now := d.Now()
	hour, err := d.Ledger.Summary(ctx, addr, now.Add(-time.Hour))
	if err != nil {
		return BotUsage{}, err
	}
	day, err := d.Ledger.Summary(ctx, addr, now.Add(-24*time.Hour))
	if err != nil {
		return BotUsage{}, err
	}
	disk, err := d.Host.Disk(addr)
	return BotUsage{
		Bot: addr, CPUHour: hour.CPU, CPUDay: day.CPU, CoreDay: day.CoreCPU, InHour: hour.Mails, InDay: day.Mails, RunsDay: day.Runs, Disk: disk,
	}, err
}

func (d *Desk) hostUsage(ctx context.Context) (HostUsage, error) {
	bots, err := d.Ledger.CountBots(ctx)
	if err != nil {
		return HostUsage{}, err
	}
	disk, err := d.Host.Disk("")
	if err != nil {
		return HostUsage{}, err
	}
	free, err := d.Host.Free()
	return HostUsage{Bots: bots, Disk: disk, Ledger: d.Ledger.Size(), Free: free}, err
}
