"use strict";
const line = document.getElementById("bank");
fetch("version")
  .then((reply) => (reply.ok ? reply.json() : Promise.reject(reply.status)))
  .then((about) => { line.textContent = `Bank ${about.bank}: ${about.tasks ?? "no"} tasks on ${about.base ?? "no model yet"}.`; })
  .catch((status) => { if (status === 401) line.textContent = "This server wants an API key."; });
