// Package crash names the steps of a mail's life, in their order, so that `make crash` can kill a process at each of them and see that
// no mail is lost and none is answered twice.
//
// It exists in builds with the tag "crash" alone. There the environment variable MAYFLY_CRASH names a file; while it holds
// "STEP VICTIM", the first call of At with that step renames it to FILE.done and kills the victim with SIGKILL: "daemon", which is the
// process itself, or every process below it that is a "broker", a "stage", a "core" or a "worker". In every other build At does
// nothing, and is not in the binary.
package crash

// Step is a moment in the life of a mail.
type Step string

// The steps, each named for what is done when At is called.
const (
	Fetched   Step = "fetched"   // from the relay's INBOX
	Passed    Step = "passed"    // by the gate
	Accepted  Step = "accepted"  // a job in the ledger
	Attempted Step = "attempted" // the attempt is counted
	Up        Step = "core up"
	Presented Step = "presented" // to core
	Told      Step = "told"      // core has told of a message
	Entered   Step = "entered"   // the bot has been told
	Answered  Step = "answered"  // the bot is done
	Drained   Step = "drained"   // core has sent all that it had to
	Read      Step = "read"      // the account's state is known
	Collected Step = "collected" // the account is on disk
	Staged    Step = "staged"    // the outgoing mail is on disk
	Committed Step = "committed"
	Opened    Step = "opened"    // an outgoing mail is about to be submitted
	Submitted Step = "submitted" // the relay has answered
	Sent      Step = "sent"      // the ledger has the answer
	Deleted   Step = "deleted"   // the mail is gone from the relay's INBOX
	Cleared   Step = "cleared"   // the ledger knows
)

// Steps are all of them, in their order.
func Steps() []Step {
	return []Step{Fetched, Passed, Accepted, Attempted, Up, Presented, Told, Entered, Answered, Drained, Read, Collected, Staged, Committed,
		Opened, Submitted, Sent, Deleted, Cleared}
}
