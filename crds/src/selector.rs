//! The schema of a label selector, bounded and checked: an unknown operator or a missing value is
//! said when the object is written, not when a controller reads it.

use schemars::{Schema, SchemaGenerator, json_schema};

/// The values that a label can have.
pub(crate) const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

/// Kubernetes' `LabelSelector` with limits: at most 32 labels, 32 expressions, 64 values each.
pub(crate) fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "type": "object",
                "description": "Labels that a node must all have, with these values.",
                "maxProperties": 32,
                "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
            },
            "matchExpressions": {
                "type": "array",
                "description": "Requirements that a node's labels must all meet.",
                "maxItems": 32,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "type": "string",
                            "description": "The label.",
                            "minLength": 1,
                            "maxLength": 317,
                        },
                        "operator": {
                            "type": "string",
                            "description": "What must hold for the label.",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "type": "array",
                            "description": "The values for `In` and `NotIn`.",
                            "maxItems": 64,
                            "items": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
                        },
                    },
                    "x-kubernetes-validations": [{
                        "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
                        "message": "In and NotIn need values, Exists and DoesNotExist take none",
                    }],
                },
            },
        },
    })
}
