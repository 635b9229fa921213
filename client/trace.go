package client

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/vramjet/vramjet/schemas"
)

// tracer makes the spans of a client, where otel.SetTracerProvider says where they go.
var tracer = otel.Tracer("github.com/vramjet/vramjet/client")

// traceSubmit begins the span of a submission, as part of the job's own trace or of that of
// ctx, and has the job carry on with it. Without a tracer (otel.SetTracerProvider) the job
// carries what it was given.
func traceSubmit(ctx context.Context, job *Job, msg *nats.Msg) (context.Context, func(Ticket, error)) {
	if job.Trace != "" {
		ctx = schemas.WithTraceparent(ctx, job.Trace)
	}
	ctx, span := tracer.Start(ctx, "submit "+job.Model,
		trace.WithSpanKind(trace.SpanKindProducer))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("messaging.system", "nats"), attribute.String("messaging.destination.name", msg.Subject),
			attribute.String("gen_ai.request.model", job.Model),
		)
	}
	if parent := schemas.Traceparent(ctx); parent != "" {
		msg.Header.Set(schemas.HeaderTrace, parent)
	}
	return ctx, func(t Ticket, err error) {
		defer span.End()
		if !span.IsRecording() {
			return
		}
		span.SetAttributes(attribute.String("messaging.message.id", t.ID))
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
	}
}
