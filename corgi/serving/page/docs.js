// The API's own description, as a page.
const make = (tag, values = {}, ...inside) => {
  const node = Object.assign(document.createElement(tag), values);
  node.append(...inside);
  return node;
};
const whole = await (await fetch("/openapi.json")).json();
if (whole.error) {
  document.getElementById("status").textContent = whole.error.message;
} else {
  for (const [path, operations] of Object.entries(whole.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      document.getElementById("operations").append(section(path, method, operation));
    }
  }
}

function section(path, method, operation) {
  const node = make("section", {}, make("h2", { textContent: `${method.toUpperCase()} ${path}` }), make("p", { textContent: operation.description ?? "" }));
  const content = operation.requestBody?.content ?? {};
  const fields = Object.values(content).flatMap(({ schema }) => Object.entries(named(schema).properties ?? {}));
  const parameters = (operation.parameters ?? []).map((one) => [one.name, one.schema]);
  if (fields.length + parameters.length) node.append(list([...parameters, ...fields]));
  return node;
}

function list(fields) {
  return make("dl", {}, ...fields.flatMap(([name, schema]) => [
    make("dt", {}, make("code", { textContent: name })),
    make("dd", { className: "soft", textContent: [kind(schema), schema.description ?? ""].filter(Boolean).join(". ") }),
  ]));
}

function named(schema) {
  return schema.$ref ? whole.components.schemas[schema.$ref.split("/").pop()] : schema;
}

function kind(schema) {
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.enum) return schema.enum.join(", ");
  if (schema.$ref) return Object.keys(named(schema).properties ?? {}).join(", ");
  const bounds = [["minimum", "from"], ["maximum", "to"], ["maxLength", "characters at most"]];
  return [schema.type, ...bounds.filter(([name]) => name in schema).map(([name, word]) => `${word} ${schema[name]}`)].join(" ");
}
