// A token after the number sign never reaches the server or its log: it is put into the field, and
// taken out of the address.
"use strict";
const given = window.location.hash.slice(1);
if (given) {
  document.getElementById("token").value = given;
  window.history.replaceState(null, "", window.location.pathname);
}
