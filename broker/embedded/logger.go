package embedded

import (
	"fmt"
	"log/slog"
)

// logger passes on what the server warns of. A server in a program has no right
// to end it, so the first fatal error is handed to whoever started it.
type logger struct {
	log   *slog.Logger
	fatal chan<- string // has room for one
}

// Noticef drops what is only news.
func (*logger) Noticef(string, ...any) {}

// Debugf drops it.
func (*logger) Debugf(string, ...any) {}

// Tracef drops it.
func (*logger) Tracef(string, ...any) {}

// Warnf logs a warning.
func (l *logger) Warnf(format string, v ...any) {
	l.log.Warn("NATS server warning", "text", fmt.Sprintf(format, v...))
}

// Errorf logs an error.
func (l *logger) Errorf(format string, v ...any) {
	l.log.Error("NATS server error", "text", fmt.Sprintf(format, v...))
}

// Fatalf logs an error that the server would end the program for.
func (l *logger) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.log.Error("NATS server fatal error", "text", text)
	select {
	case l.fatal <- text:
	default:
	}
}
