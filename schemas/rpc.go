package schemas

// What a worker asks a service that is a backend, on RPCSubject.
const (
	RPCModels   = "models"   // no body; answered by RPCModelList
	RPCGenerate = "generate" // an OpenAI request, with HeaderKind; answered by chunks and RPCDone
	RPCEmbed    = "embed"    // an OpenAI request; answered by OpenAI's list
	RPCLoad     = "load"     // an RPCModelRequest; answered when the model is in memory
	RPCUnload   = "unload"   // an RPCModelRequest; answered when the model is out of memory
	RPCPressure = "pressure" // an RPCModelRequest; answered by RPCPressureReport
	RPCCancel   = "cancel"   // the reply subject of a request to give up; no answer
)

var rpcVerbs = []string{RPCModels, RPCGenerate, RPCEmbed, RPCLoad, RPCUnload, RPCPressure, RPCCancel}

// RPCDone is the message that ends a whole answer to RPCGenerate.
const RPCDone = "[DONE]"

// An RPCModelList answers RPCModels.
type RPCModelList struct {
	Models []RPCModel `json:"models"`
}

// An RPCModel is one model of a service. Only its name is required.
type RPCModel struct {
	Name    string     `json:"name"`
	Kinds   []Kind     `json:"kinds,omitempty"`   // none: chat and completion
	State   ModelState `json:"state,omitempty"`   // "": resident
	VRAM    Amount     `json:"vram,omitzero"`     // device memory it takes now
	Need    Amount     `json:"need,omitzero"`     // device memory a load of it takes
	Slots   int        `json:"slots,omitempty"`   // jobs it runs at once; 0: 1
	Context int        `json:"context,omitempty"` // longest context, in tokens; 0: unknown
	Digest  string     `json:"digest,omitempty"`

	// Abilities are what it can do beside text: tools, vision, reasoning. nil:
	// unknown, empty: none of these.
	Abilities []string `json:"abilities,omitzero"`
}

// An RPCModelRequest is the body of RPCLoad, RPCUnload and RPCPressure.
type RPCModelRequest struct {
	Model string `json:"model"`
}

// An RPCPressureReport answers RPCPressure: how busy a model is. nil is unknown.
type RPCPressureReport struct {
	Running *int     `json:"running,omitempty"` // requests that generate now
	Waiting *int     `json:"waiting,omitempty"` // requests in the service's own queue
	Slots   int      `json:"slots,omitempty"`   // requests that it runs at once; 0: unknown
	KVUsed  *float64 `json:"kv_used,omitempty"` // share of the key-value cache in use, 0 to 1
}

// An RPCError answers anything that failed, also in the middle of an answer.
type RPCError struct {
	Error RPCFailure `json:"error"`
}

// An RPCFailure says what failed. Code is one of ours, or whatever the service has:
// then the rest tells.
type RPCFailure struct {
	Message string `json:"message"`
	Type    string `json:"type,omitempty"`
	Code    string `json:"code,omitempty"`
	Param   string `json:"param,omitempty"` // the member of the request that is to blame

	// RetryAfterMS is how long to leave the service alone. 0: it does not say.
	RetryAfterMS int64 `json:"retry_after_ms,omitempty"`
}
