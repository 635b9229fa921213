package schemas

// ValidateBody checks an OpenAI request body against the JSON Schema of its kind.
func ValidateBody(kind Kind, body []byte) error { return nil }
