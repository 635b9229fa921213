package dispatcher

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/vramjet/vramjet/schemas"
)

// tracer makes the spans of a dispatcher, where otel.SetTracerProvider says where they go.
var tracer = otel.Tracer("github.com/vramjet/vramjet/dispatcher")

// traceQueue begins the span of a job's wait, from when the queue took it, and returns the
// context that its node goes on with as a traceparent: the job's own where nobody wants
// traces.
func (j *job) traceQueue() string {
	if j.span != nil { // another node was asked before
		return schemas.Traceparent(trace.ContextWithSpan(context.Background(), j.span))
	}
	parent := schemas.WithTraceparent(context.Background(), j.msg.Header.Get(schemas.HeaderTrace))
	ctx, span := tracer.Start(parent, "queue "+j.Flow.Model, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(j.at))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("messaging.system", "nats"), attribute.String("messaging.message.id", j.ID),
			attribute.String("gen_ai.request.model", j.Flow.Model),
			attribute.String("vramjet.tenant", j.Flow.Tenant), attribute.String("vramjet.class", string(j.Flow.Class)),
			attribute.Int("vramjet.attempt", int(j.attempt)), //nolint:gosec // a few
		)
	}
	j.span = span
	return schemas.Traceparent(ctx)
}

// traced ends it: the job has a node.
func (t *term) traced(j *job, now time.Time) {
	if j.span == nil {
		return
	}
	if c := j.promise.choice; j.span.IsRecording() {
		j.span.AddEvent("decided", trace.WithTimestamp(j.promise.given))
		j.span.SetAttributes(attribute.String("vramjet.node", c.Node), attribute.String("vramjet.backend", c.Backend),
			attribute.String("gen_ai.response.model", c.Model), attribute.String("vramjet.place", t.fleet.how(j.promise)))
	}
	j.span.End(trace.WithTimestamp(now))
	j.span = nil
}
