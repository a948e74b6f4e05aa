package sandbox

func daemonMain() int { return 1 }
