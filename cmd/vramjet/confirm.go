package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// consent is for commands that may touch many things.
type consent struct {
	DryRun bool `help:"Only say what would be done."`
	Yes    bool `short:"y" help:"Do not ask."`
}

// ask asks before more than one of n things is touched: on a terminal the user, and
// elsewhere for --yes. what is what would be done: "remove 3 dead letters".
func (c *consent) ask(a *app, n int, what string) error {
	if n <= 1 || c.Yes {
		return nil
	}
	if !isTerminal(a.in) {
		return unsaid(what)
	}
	return agree(a.in, a.err, what)
}

func unsaid(what string) error {
	return usage(fmt.Errorf("this would %s: say --yes if that is meant (--dry-run shows it)", what))
}

// agree asks the user, who says nothing but y or yes to agree.
func agree(in io.Reader, out io.Writer, what string) error {
	fmt.Fprintf(out, "%s%s? [y/N] ", strings.ToUpper(what[:1]), what[1:])
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && line == "" { // nobody is there: /dev/null looks like a terminal
		return unsaid(what)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	default:
		return errors.New("nothing was done")
	}
}
