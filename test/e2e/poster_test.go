//go:build bots

package e2e

import (
	"testing"
	"time"

	"mayfly/internal/bot"
)

// TestPosters has daemons that post by a clock of their own, written as their framework's documentation shows. With a schedule, what is due
// by that clock is posted when the host runs them, and it is what the daemon posts.
func TestPosters(t *testing.T) {
	t.Run("poster", func(t *testing.T) {
		const welcome, news = "you will get the news again and again", "the news"
		w := newWorld(t)
		bundle := published(t, "poster")
		address, invite := w.start("poster101", bundle)
		w.ledger()
		t.Cleanup(func() { w.printRuns(address) })
		ada := w.person("ada000101")
		chat := ada.join(invite)
		ada.say(chat, "hello")
		ada.expect(welcome)
		w.awaitJobs(address, 3)
		w.stop()
		time.Sleep(3 * time.Second) // until the news are due
		w.due(address)
		ada.expect(news)
		runs := w.scheduledRuns(address)
		if len(runs) != 1 || runs[0].Record.Status != bot.RunOK {
			t.Fatalf("the runs of the schedule are %+v, want one", runs)
		}
		t.Logf("a run of %s, %.0f %% of it waiting for quiet", runs[0].Record.Wall.Round(time.Millisecond), 100*w.quiet())

		bob := w.person("bob000101")
		bobs := bob.join(w.daemon("home00101", bundle, serverOf(t, "2.58.0")))
		bob.say(bobs, "hello")
		heard := map[string]bool{}
		for len(heard) < 2 {
			heard[bob.hear().Text] = true
		}
		if !heard[welcome] || !heard[news] {
			t.Errorf("the daemon says %v", heard)
		}
	})
}
