package bot

import "testing"

func TestAddresses(t *testing.T) {
	m := Manifest{Name: "Dice Bot", Commands: []Command{{Name: "roll"}}}
	for text, want := range map[string]bool{
		"/roll": true, "/ROLL 2d6": true, "/roll@Dice": true, "/roll\n2d6": true, "hey @dice bot, roll": true,
		"/rolls": false, "roll": false, " /roll": false, "/": false, "": false, "dice bot": false, "/ roll": false,
	} {
		if m.Addresses(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}
